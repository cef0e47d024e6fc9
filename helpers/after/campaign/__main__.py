from helpers.after.campaign.runner import main

main()
